"""The field's file formats: each is read into millimetres in the camera frame, and written from them."""
