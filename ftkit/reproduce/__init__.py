"""Why two runs differ, and one file by which a run is done again."""
