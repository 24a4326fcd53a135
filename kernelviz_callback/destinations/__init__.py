"""Where the pictures of a training go: one room for each kind of logger."""
