"""Records and errors that every other layer shares; standard library only."""
