"""LoRA-One on a model that fills the card: gradients, 4-bit base, adapter, training.

Without --model a Llama of a few thousand weights is made, with every step that a real one takes:

    python examples/peft_large.py
    python examples/peft_large.py --model DIR --bf16 --checkpointing --four-bit --reduce svd
"""

import argparse
import tempfile
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM

from loraone_theory.integrations.peft import (
    LoRAOneConfig,
    PairOptimizer,
    SavedGradients,
    get_lora_one_gradients,
    initialize_lora_one_weights,
)

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--model", help="a folder or name for from_pretrained; none: a toy model")
parser.add_argument("--bf16", action="store_true", help="base weights in bfloat16")
parser.add_argument("--checkpointing", action="store_true", help="recompute activations")
parser.add_argument("--four-bit", action="store_true", help="train on a 4-bit base (bitsandbytes)")
parser.add_argument("--reduce", choices=("none", "svd", "sketch"), default="svd")
parser.add_argument("--groups", type=int, help="with svd: exact over several batches")
parser.add_argument("--batches", type=int, default=1, help="of the gradient")
parser.add_argument("--rank", type=int, default=4)
parser.add_argument("--gamma", type=float, default=128.0)
parser.add_argument("--steps", type=int, default=10)
parser.add_argument("--gradients", type=Path, help="file to keep them in; none: a temporary one")
args = parser.parse_args()

if args.reduce == "svd" and args.batches > 1 and args.groups is None:
    parser.error("--reduce svd is exact for one batch; add --groups, or take --reduce sketch")


def loaded(four_bit: bool) -> torch.nn.Module:
    """The base model, in floating point or in 4 bits."""
    dtype = torch.bfloat16 if args.bf16 else torch.float32
    if args.model is None:
        torch.manual_seed(0)
        sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
        heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
        return LlamaForCausalLM(LlamaConfig(vocab_size=64, **sizes, **heads)).to(dtype)
    quantised = {}
    if four_bit:
        quantised["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
        )
    return AutoModelForCausalLM.from_pretrained(
        args.model, dtype=dtype, device_map={"": device}, **quantised
    )


def checkpointed(model: torch.nn.Module) -> torch.nn.Module:
    """Activations are recomputed in the backward pass, where asked for."""
    if args.checkpointing:
        model.train()
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
    return model


device = torch.device("cuda" if args.model and torch.cuda.is_available() else "cpu")
config = LoraConfig(r=args.rank, lora_alpha=2 * args.rank, target_modules="all-linear")
file = args.gradients or Path(tempfile.mkdtemp()) / "gradients.safetensors"

# 1. Gradients from the base in floating point, each reduced as soon as it is there.
base = checkpointed(loaded(four_bit=False))
vocabulary = base.config.vocab_size
ids = torch.randint(
    0, vocabulary, (args.batches, 4, 16), generator=torch.Generator().manual_seed(1)
)


def train_step() -> None:
    """All batches, so that groups= sees the same ones each time."""
    for batch in ids.to(device):
        base(input_ids=batch, labels=batch).loss.backward()


get_lora_one_gradients(
    base, config, train_step, cache_file=file, reduce=args.reduce, groups=args.groups
)

# 2. The base that is trained on. The first one has to go before the second comes.
if args.four_bit:
    del base
    base = prepare_model_for_kbit_training(
        loaded(four_bit=True), use_gradient_checkpointing=args.checkpointing
    )

# 3. The adapter, from the saved gradients, of which one is read at a time.
model = get_peft_model(base, config)


def check() -> torch.Tensor:
    """One batch, with its loss."""
    loss = model(input_ids=ids[0].to(device), labels=ids[0].to(device)).loss
    loss.backward()
    return loss


options = LoRAOneConfig(gamma=args.gamma)
reports = initialize_lora_one_weights(model, SavedGradients(file), options, check=check)

# 4. Training.
optimizer = PairOptimizer(model, "scaled-adamw", lr=1e-3, damping=1e-4)
for _ in range(args.steps):
    optimizer.zero_grad()
    loss = check()
    optimizer.step()
kept = file.stat().st_size / 1e6
print(f"{len(reports)} modules; {kept:.3f} MB of gradients; {reports.check}; loss {loss:.4f}")
