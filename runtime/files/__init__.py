"""Files: whole or not there, one owner to a folder, and foreign ones read with suspicion."""
