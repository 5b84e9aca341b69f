"""Who is sent next where many want to be: the places on a link, shared among customers."""
