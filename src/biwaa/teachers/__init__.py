"""Teachers: what another model says of the images, read, matched with the run's rows and classes, and measured."""
