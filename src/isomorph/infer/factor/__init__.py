"""What moves between tensors -> what they have in common: moves -> blocks -> sums and products of axes -> a Relation; and back."""
