"""The same trainings with PoseTune and with what people would use instead of it, and what each of them costs."""
