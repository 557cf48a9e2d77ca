"""A model for other people: a server with its page and feedback, files for hosting elsewhere."""
