"""Weight files: where they lie, how they are fetched and verified, what they hold, and under which keys."""
