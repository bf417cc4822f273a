"""What examples of concepts and their random counterparts are taken from: folders, datasets, generated patterns."""
