"""Real servers as child processes: Valkey and Postgres out of wheels, without root, containers or installs."""
