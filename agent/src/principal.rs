//! Whose token it is: the claims of a JWT, and the rule that they never change.
