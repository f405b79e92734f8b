"""Reports about runs, networks, data and the installation."""
