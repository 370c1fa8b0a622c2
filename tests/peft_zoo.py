"""Small models of the architectures that people fine-tune, from their configurations."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from peft_nets import transformers
from torch import Tensor, nn

WORDS = 19


class Kind(NamedTuple):
    """One architecture.

    Args:
        make: the model, of random weights and without dropout.
        inputs: n -> a batch of n.
        targets: for target_modules.
        pattern: a module's name in rank_pattern and alpha_pattern.
        save: for modules_to_save.
        experts: some targets are the fused weights of several experts.
    """

    make: Callable[[], nn.Module]
    inputs: Callable[[int], dict[str, Tensor]]
    targets: list[str] | str
    pattern: str
    save: list[str]
    experts: bool = False


def words(n: int, length: int = 6) -> Tensor:
    return torch.randint(0, WORDS, (n, length), generator=torch.Generator().manual_seed(1))


def language(n: int) -> dict[str, Tensor]:
    return {"input_ids": words(n), "labels": words(n)}


def llama() -> nn.Module:
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            vocab_size=WORDS,
            tie_word_embeddings=True,
        )
    )


def gpt2() -> nn.Module:
    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            n_layer=2,
            n_embd=16,
            n_head=2,
            vocab_size=WORDS,
            n_positions=8,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
        )
    )


def t5() -> nn.Module:
    return transformers.T5ForConditionalGeneration(
        transformers.T5Config(
            d_model=16,
            d_kv=8,
            d_ff=24,
            num_layers=1,
            num_heads=2,
            vocab_size=WORDS,
            dropout_rate=0.0,
            decoder_start_token_id=0,
        )
    )


def bert() -> nn.Module:
    return transformers.BertForSequenceClassification(
        transformers.BertConfig(
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            vocab_size=WORDS,
            max_position_embeddings=8,
            num_labels=3,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
    )


def vit() -> nn.Module:
    return transformers.ViTForImageClassification(
        transformers.ViTConfig(
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=8,
            patch_size=4,
            num_channels=1,
            num_labels=3,
        )
    )


def whisper() -> nn.Module:
    return transformers.WhisperForConditionalGeneration(
        transformers.WhisperConfig(
            d_model=16,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=24,
            decoder_ffn_dim=24,
            vocab_size=WORDS,
            num_mel_bins=4,
            max_source_positions=4,
            max_target_positions=8,
            dropout=0.0,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            decoder_start_token_id=3,
        )
    )


def mixtral() -> nn.Module:
    hf = transformers.MixtralConfig(
        hidden_size=16,
        intermediate_size=12,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        vocab_size=WORDS,
        num_local_experts=2,
    )
    hf._experts_implementation = "eager"  # the fused kernel knows no float64
    return transformers.MixtralForCausalLM(hf)


QWEN = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "moe_intermediate_size": 12,
    "num_hidden_layers": 2,
    "mlp_only_layers": [0],
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": WORDS,
    "num_experts": 2,
    "num_experts_per_tok": 2,
}


def qwen2_moe() -> nn.Module:
    """A shared expert beside the others, and its gate; PEFT adapts these and no fused weights."""
    hf = transformers.Qwen2MoeConfig(shared_expert_intermediate_size=12, **QWEN)
    hf._experts_implementation = "eager"
    return transformers.Qwen2MoeForCausalLM(hf)


def qwen3_moe() -> nn.Module:
    """PEFT adapts the router and the fused weights of the experts."""
    hf = transformers.Qwen3MoeConfig(head_dim=8, **QWEN)
    hf._experts_implementation = "eager"
    return transformers.Qwen3MoeForCausalLM(hf)


def classes(n: int) -> Tensor:
    return torch.randint(0, 3, (n,), generator=torch.Generator().manual_seed(2))


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))


KINDS = {
    "llama": Kind(llama, language, ["q_proj", "v_proj", "down_proj"], "down_proj", ["norm"]),
    "gpt2": Kind(gpt2, language, ["c_attn", "c_fc"], "c_fc", ["ln_f"]),
    "t5": Kind(t5, language, ["q", "v", "wi"], "wi", ["final_layer_norm"]),
    "bert": Kind(
        bert,
        lambda n: {"input_ids": words(n), "labels": classes(n)},
        ["query", "value"],
        "value",
        ["classifier"],
    ),
    "vit": Kind(
        vit,
        lambda n: {"pixel_values": normal(n, 1, 8, 8), "labels": classes(n)},
        ["q_proj", "fc1"],
        "fc1",
        ["classifier"],
    ),
    "whisper": Kind(
        whisper,
        lambda n: {"input_features": normal(n, 4, 8), "labels": words(n)},
        ["q_proj", "fc1"],
        "fc1",
        ["layer_norm"],
    ),
    "mixtral": Kind(mixtral, language, "all-linear", "q_proj", ["norm"], experts=True),
    "qwen2-moe": Kind(qwen2_moe, language, "all-linear", "q_proj", ["norm"]),
    "qwen3-moe": Kind(qwen3_moe, language, "all-linear", "q_proj", ["norm"], experts=True),
}


def made(kind: Kind, dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    return kind.make().to(dtype)


def loss_of(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    parameter = next(p for p in model.parameters() if p.is_floating_point())
    cast = {k: v.to(parameter.dtype) if v.is_floating_point() else v for k, v in inputs.items()}
    return model(**cast).loss
