"""Tables of combinations, trials, joints and effects."""
