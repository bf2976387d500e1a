"""The fault suite: a scripted provider, a house of real processes, faults, and a judge.

python -m chaos --help
"""
