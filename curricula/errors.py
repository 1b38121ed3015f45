"""What a user did wrong, said in one line."""


class UserError(ValueError):
    """Bad input: the message is one line with the value, what is allowed and the mend.

    The command line prints it and exits with status 2; a library caller may catch it as
    the ``ValueError`` that it is. A bug of ours is never raised as this class.
    """


class UnknownNameError(UserError):
    """A name that no loaded plugin registered, with its nearest registered names."""
