"""The small world: a generated corpus and task sets, the default data of every command."""
