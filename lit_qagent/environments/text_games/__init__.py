"""Third-party text games as worlds: TextWorldExpress, TextWorld's cooking games, ScienceWorld."""
