"""The agent kit, the model layer, and the agents that ship. Names are imported from the module of their noun."""
