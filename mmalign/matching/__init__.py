"""Phrases and regions to an assignment: the problem, its solvers and their bound."""
