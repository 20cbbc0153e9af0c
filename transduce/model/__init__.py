"""The model knows tensors only. Legend of the shape letters used in every comment:

B sentences in a batch      N hypotheses (B * W)     W beam width
S source positions          T target positions
D model width               E embedding width        F feed-forward width
H attention heads           K width of one head      V vocabulary size
C width of the summary (context vector)              G key/value heads (grouped-query attention)
L layers
A mask is always True = real.
"""
