"""Matrix sensing: labels y_i = ⟨a_i, Δ⟩ + z_i of m scalar measurements."""
