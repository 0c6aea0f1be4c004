"""The scheduling agent: finds, books, moves and cancels appointments in PostgreSQL."""
