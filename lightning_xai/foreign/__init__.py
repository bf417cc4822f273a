"""What others keep private and this library needs all the same: a named function each, and a test that it is there."""
