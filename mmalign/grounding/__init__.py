"""Where in a picture a phrase is: the learned head, and what needs no learning."""
