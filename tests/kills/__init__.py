"""SIGKILL at random moments of the commands that take long, with the real `lite`; `make kills` runs all of them."""
