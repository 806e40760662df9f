"""Who may sign in to the console and how: password, second factor, passkey, single sign-on. Built on django-allauth."""
