"""The table of calls that tests/test_contract.py goes through, a module for each wing."""
