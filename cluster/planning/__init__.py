"""What is to be trained, checked before anything starts: configs, search space, identity, plan."""
