"""What was measured, described as pictures, rows and numbers. Nothing here sees a model or draws."""
