"""The checkpointer on asyncpg, the session lock of each device, and its turns."""
