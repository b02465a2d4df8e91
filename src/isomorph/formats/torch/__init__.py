"""What torch.save wrote: zip archives, the pickles before them, and the tars of the oldest."""
