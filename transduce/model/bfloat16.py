"""Products in bfloat16, for prediction.

In: a trained model. Out: a copy that answers nearly the same, whose encoder and decoder multiply bfloat16 numbers. What layers pass on,
norms and the scores of attention stay float32. The decision to question: the output layer has int8 products, whose sums are exact
(int8.py), because bfloat16 logits of 10 differ by steps of 0.06.
"""

from transduce.model.bfloat16_layers import bfloat16_layer
from transduce.model.bfloat16_transformer import decoder_with_loops, encoder_with_loops
from transduce.model.heads import token_head
from transduce.model.int8 import Int8TokenHead, with_products
from transduce.model.seq2seq import Seq2Seq


def bfloat16_model(model: Seq2Seq) -> Seq2Seq:
    """A copy of `model` with bfloat16 products in encoder and decoder; everything else is shared with it, the weights included."""
    converted = with_products(model, bfloat16_layer)
    converted.encoder, converted.decoder = encoder_with_loops(converted.encoder), decoder_with_loops(converted.decoder)
    converted.head = Int8TokenHead(token_head(converted.head))
    return converted
