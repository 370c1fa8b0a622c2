"""Any PEFT model to LoRA-One: gradients, adapter, initialisation, training."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import ViTConfig, ViTForImageClassification

from loraone_theory.integrations.alignment import AlignmentTracker
from loraone_theory.integrations.peft import (
    LoRAOneConfig,
    PairOptimizer,
    get_lora_one_gradients,
    initialize_lora_one_weights,
)

torch.manual_seed(0)
small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
images = {"image_size": 8, "patch_size": 2, "num_channels": 1, "num_labels": 5}
model = ViTForImageClassification(ViTConfig(num_attention_heads=4, **small, **images))
batch = {"pixel_values": torch.randn(64, 1, 8, 8), "labels": torch.randint(0, 5, (64,))}

config = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "fc1", "fc2"])
gradients = get_lora_one_gradients(model, config, lambda: model(**batch).loss.backward())
model = get_peft_model(model, config)
report = initialize_lora_one_weights(model, gradients, LoRAOneConfig(gamma=16.0))

tracker = AlignmentTracker(model, gradients)
optimizer = PairOptimizer(model, "scaled-adamw", lr=3e-3, damping=1e-4)
for _ in range(10):
    optimizer.zero_grad()
    loss = model(**batch).loss
    loss.backward()
    optimizer.step()
    tracker.step()
energy = min(module.energy for module in report.values())
print(f"energy kept >= {energy:.2f}; loss {loss:.3f}; {tracker.summary()[-1]}")
