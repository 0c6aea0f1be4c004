"""Moving conversations to another database: export and import of their rows, exactly as they are.

docs/moving.md describes the format. What a person may want to see of themselves is `DeviceCheckpointer.export`.
"""
