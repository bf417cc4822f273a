"""What the module's own step feeds to the model, what it takes from it, and what that means: seen, not guessed."""
