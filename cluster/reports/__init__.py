"""A result table as files and as text for a person."""
