"""Exports the networks that trainer/tests align, as ONNX without the weights' data, and small checkpoints.

    python3 -m pip install torch torchvision timm transformers onnx onnxscript
    python3 trainer/tests/networks/export.py [NAME...]

Run once; its results lie beside it and are committed, so that no test needs PyTorch. What is
stripped is the data of the initialisers that are parameters or buffers of the module: a test
draws them from a seed. Constants keep their data.
"""

import pathlib
import sys

import onnx
import torch
from torch import nn
from torch.nn import functional

HERE = pathlib.Path(__file__).parent


def mlp():
    """784-32-32-10, as for MNIST."""
    layers = [nn.Linear(784, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10)]
    return nn.Sequential(*layers), torch.randn(2, 784)


class Block(nn.Module):
    """A basic block; its shortcut pads channels with zeros (He et al. 2016, option A)."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride, self.missing = stride, outputs - inputs

    def forward(self, x):
        y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        if self.missing:
            x = x[:, :, :: self.stride, :: self.stride]
            x = functional.pad(x, (0, 0, 0, 0, self.missing // 2, self.missing // 2))
        return functional.relu(x + y)


class ResNet20(nn.Module):
    """ResNet-20 for 32 x 32 images (He et al. 2016, section 4.2)."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        widths = [16, 16, 16, 16, 32, 32, 32, 64, 64, 64]
        pairs = zip(widths, widths[1:])
        self.blocks = nn.Sequential(*(Block(a, b, b // a) for a, b in pairs))
        self.fc = nn.Linear(64, 10)

    def forward(self, x):
        x = self.blocks(functional.relu(self.bn1(self.conv1(x))))
        return self.fc(x.mean((2, 3)))


def resnet20():
    return ResNet20(), torch.randn(2, 3, 32, 32)


def resnet18():
    import torchvision

    return torchvision.models.resnet18(), torch.randn(2, 3, 64, 64)


def mobilenet():
    """Depthwise convolutions, squeeze and excitation, hard swish."""
    import torchvision

    return torchvision.models.mobilenet_v3_small(), torch.randn(2, 3, 64, 64)


def resnext():
    """Grouped convolutions: a slim ResNeXt of two stages, 4 groups."""
    from torchvision.models.resnet import Bottleneck, ResNet

    model = ResNet(Bottleneck, [1, 1, 1, 1], num_classes=10, groups=4, width_per_group=8)
    return model, torch.randn(2, 3, 64, 64)


def vit():
    import timm

    return timm.create_model("vit_tiny_patch16_224", depth=6), torch.randn(2, 3, 224, 224)


def tokens():
    return torch.randint(0, 100, (2, 8))


def bert(**config):
    from transformers import BertConfig, BertModel

    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.bert = BertModel(BertConfig(attn_implementation="eager", **config))

        def forward(self, input_ids, attention_mask):
            result = self.bert(input_ids=input_ids, attention_mask=attention_mask)
            return result.last_hidden_state, result.pooler_output

    return Encoder(), (tokens(), torch.ones(2, 8, dtype=torch.int64))


def bert_base():
    return bert()


def bert_slim():
    """The same definition, small enough to draw and align in a second."""
    return bert(
        vocab_size=100, hidden_size=48, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=64, max_position_embeddings=16,
    )


def llama_slim():
    """Grouped heads (2 of keys for 4 of queries), rotary positions, gated MLP."""
    from transformers import LlamaConfig, LlamaForCausalLM

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            config = LlamaConfig(
                vocab_size=100, hidden_size=48, num_hidden_layers=2, num_attention_heads=4,
                num_key_value_heads=2, intermediate_size=64, max_position_embeddings=16,
                attn_implementation="eager",
            )
            self.llama = LlamaForCausalLM(config)

        def forward(self, input_ids):
            return self.llama(input_ids=input_ids, use_cache=False).logits

    return Model(), tokens()


def tanh():
    """A policy of two tanh layers."""
    layers = [nn.Linear(8, 24), nn.Tanh(), nn.Linear(24, 16), nn.Tanh(), nn.Linear(16, 2)]
    return nn.Sequential(*layers), torch.randn(2, 8)


class Policy(nn.Module):
    """A recurrent policy: encoder, recurrent layer, head on the last step."""

    def __init__(self, kind, **options):
        super().__init__()
        self.encoder = nn.Linear(6, 24)
        self.rnn = kind(24, 16, batch_first=True, **options)
        self.head = nn.Linear(32 if options.get("bidirectional") else 16, 4)

    def forward(self, x):
        y, _ = self.rnn(torch.tanh(self.encoder(x)))
        return self.head(y[:, -1])


def gru():
    return Policy(nn.GRU, num_layers=2), torch.randn(2, 5, 6)


def lstm():
    return Policy(nn.LSTM), torch.randn(2, 5, 6)


class Shuffle(nn.Module):
    """Grouped convolutions whose channels are shuffled between them, as in ShuffleNet."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.conv1 = nn.Conv2d(16, 16, 1, groups=4, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.shuffle = nn.ChannelShuffle(4)
        self.conv2 = nn.Conv2d(16, 24, 3, padding=1, groups=4)
        self.fc = nn.Linear(24, 5)

    def forward(self, x):
        x = functional.relu(self.bn1(self.conv1(functional.relu(self.stem(x)))))
        return self.fc(functional.relu(self.conv2(self.shuffle(x))).mean((2, 3)))


def shuffle():
    return Shuffle(), torch.randn(2, 3, 8, 8)


class GroupNormNet(nn.Module):
    """Group normalisation, a flattened head and two concatenated branches."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.norm = nn.GroupNorm(4, 16)
        self.left = nn.Conv2d(16, 8, 3, padding=1)
        self.right = nn.Conv2d(16, 12, 1)
        self.fc1 = nn.Linear(20 * 16, 32)
        self.fc2 = nn.Linear(32, 5)

    def forward(self, x):
        x = functional.silu(self.norm(self.stem(x)))
        x = functional.max_pool2d(torch.cat([self.left(x), self.right(x)], 1), 2)
        return self.fc2(functional.gelu(self.fc1(x.flatten(1))))


def groupnorm():
    return GroupNormNet(), torch.randn(2, 3, 8, 8)


NETWORKS = [
    mlp, tanh, resnet20, resnet18, mobilenet, resnext, vit, bert_base, bert_slim, llama_slim, gru,
    lstm, groupnorm, shuffle,
]


def strip(model, names):
    """Takes the data away from the module's own tensors, and what people alone read."""
    for tensor in model.graph.initializer:
        if tensor.name in names and tensor.data_type == onnx.TensorProto.FLOAT:
            for field in ["raw_data", "float_data", "external_data", "data_location"]:
                tensor.ClearField(field)
    model.graph.ClearField("value_info")
    model.ClearField("metadata_props")
    model.graph.ClearField("metadata_props")
    for node in model.graph.node:
        node.ClearField("metadata_props")
        node.ClearField("doc_string")


def export(make):
    torch.manual_seed(0)
    module, example = make()
    module.eval()
    args = example if isinstance(example, tuple) else (example,)
    shapes = tuple({0: torch.export.Dim("batch")} for _ in args)
    # The optimiser folds transposed weights and batch normalisation, and merges equal tensors:
    # one of its results is kept to be refused.
    for name, optimize in [(make.__name__, False), (f"{make.__name__}_optimized", True)]:
        if make is resnet20 or not optimize:
            program = torch.onnx.export(
                module, args, dynamo=True, dynamic_shapes=shapes, opset_version=20,
                optimize=optimize,
            )
            write(name, program.model_proto, module)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(2, 3)
        self.norm = nn.BatchNorm1d(3)
        self.fc2 = nn.Linear(3, 2)


def checkpoints():
    """Small checkpoints in the ways in which people save them; the values count from 0."""

    module = Net()
    for tensor in module.state_dict().values():
        tensor.copy_(torch.arange(tensor.numel()).reshape(tensor.shape))
    state = module.state_dict()
    folder = HERE.parent / "checkpoints"
    folder.mkdir(exist_ok=True)
    torch.save(state, folder / "zip.pt")
    torch.save(state, folder / "legacy.pth", _use_new_zipfile_serialization=False)
    optimizer = torch.optim.Adam(module.parameters())
    module.fc2(module.fc1(torch.ones(4, 2))).sum().backward()
    optimizer.step()
    for tensor in module.state_dict().values():
        tensor.copy_(torch.arange(tensor.numel()).reshape(tensor.shape))
    wrapped = {f"module.{name}": tensor for name, tensor in state.items()}
    nested = {"epoch": 3, "state_dict": wrapped, "optimizer": optimizer.state_dict()}
    torch.save(nested, folder / "nested.pt")
    torch.save({name: tensor.half() for name, tensor in state.items()}, folder / "half.pt")
    torch.save({name: tensor.bfloat16() for name, tensor in state.items()}, folder / "bfloat16.pt")
    # A module whose own parts are called as training programs call their keys.
    torch.save({f"net.{name}": tensor for name, tensor in state.items()}, folder / "own.pt")
    torch.save(module, folder / "module.pt")
    torch.save({"epoch": 3, "name": "nothing"}, folder / "nothing.pt")


def write(name, model, module):
    state = module.state_dict()
    initialisers = {tensor.name: tensor for tensor in model.graph.initializer}
    strangers = [name for name in initialisers if name not in state]
    strip(model, set(state))
    path = HERE / f"{name}.onnx"
    path.write_bytes(model.SerializeToString())
    floats = {k for k, v in state.items() if v.is_floating_point()}
    print(name, f"{path.stat().st_size} bytes, not in the graph: {sorted(floats - set(initialisers))}")
    print("   not in the module:", strangers[:8], len(strangers))


if __name__ == "__main__":
    chosen = sys.argv[1:]
    if not chosen or "checkpoints" in chosen:
        checkpoints()
    for make in NETWORKS:
        if not chosen or make.__name__ in chosen:
            export(make)
