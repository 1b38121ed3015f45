"""From an expression's text to the tree that runs on a batch."""
