"""How far the choice of the best combination can be trusted, and how soon a search would have found it."""
