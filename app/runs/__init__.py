"""What the user sees of a run: its record, its states, and the book that keeps them."""
