"""Files: complete or absent, one owner per folder, and foreign ones read with suspicion."""
