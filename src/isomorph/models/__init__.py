"""Reference implementations of CLIP, ViT, BERT and T5 in torch, and of ViT in Paddle: one readable file a family.

Their state dicts have the names of a catalogue layout: `clip/hf`, `vit/hf`, `bert/hf`, `t5/hf`, with `fused=True` those of
`fused_qkv` in the same family; the Paddle ViT has those of `vit/paddle_nn`. So load_model fills them from any layout of the family.
"""
