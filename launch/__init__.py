"""The commands: parse options, build objects, call the packages; no logic of their own."""
