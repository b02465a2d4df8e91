"""How the same elements lie on either side: read off their values, as moves, by axes, fibres, single elements, usual layouts."""
