"""The nets once more in torch, straight from the papers, as functions of the same parameter trees."""

import numpy as np
import torch
import torch.nn.functional as F


def tensor(x):
    return torch.from_numpy(np.array(x, np.float32))


def images(x):
    """NHWC to torch's NCHW."""
    return tensor(x).permute(0, 3, 1, 2)


class Net:
    """Layers that look their weights up by name; ``stats`` is written to where ``train`` is set."""

    def __init__(self, params, stats, train=False, eps=1e-5, num_groups=None):
        self.params, self.stats, self.train, self.eps, self.num_groups = params, stats, train, eps, num_groups
        self.updated = {}

    def at(self, name):
        return Net(self.params[name], self.stats.get(name, {}), self.train, self.eps, self.num_groups)

    def conv(self, x, name, stride=1, padding=0, groups=1):
        weight = tensor(self.params[name]["kernel"]).permute(3, 2, 0, 1)
        bias = self.params[name].get("bias")
        return F.conv2d(x, weight, None if bias is None else tensor(bias), stride, padding, groups=groups)

    def same_conv(self, x, name, kernel, stride=1, groups=1):
        """TensorFlow's SAME: the odd pixel of padding goes to the right and below."""
        total = [max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in x.shape[2:]]
        (top, left), (bottom, right) = [n // 2 for n in total], [n - n // 2 for n in total]
        return self.conv(F.pad(x, (left, right, top, bottom)), name, stride, groups=groups)

    def norm(self, x, name):
        scale, bias = tensor(self.params[name]["scale"]), tensor(self.params[name]["bias"])
        if self.num_groups:
            return F.group_norm(x, self.num_groups, scale, bias, self.eps)
        mean, var = tensor(self.stats[name]["mean"]), tensor(self.stats[name]["var"])
        out = F.batch_norm(x, mean, var, scale, bias, self.train, 0.1, self.eps)
        self.updated[name] = (mean, var)
        return out

    def dense(self, x, name):
        return F.linear(x, tensor(self.params[name]["kernel"]).T, tensor(self.params[name]["bias"]))


def flat(x):
    return x.permute(0, 2, 3, 1).flatten(1)


def mlp(net, x):
    return net.dense(torch.relu(net.dense(flat(x), "hidden_0")), "head")


def lenet5(net, x):
    x = F.avg_pool2d(torch.tanh(net.conv(x, "conv_0", padding=2)), 2)
    x = flat(F.avg_pool2d(torch.tanh(net.conv(x, "conv_1")), 2))
    return net.dense(torch.tanh(net.dense(torch.tanh(net.dense(x, "dense_0")), "dense_1")), "head")


def cifar_net(net, x):
    for i in range(6):
        x = torch.relu(net.conv(x, f"conv_{i}", padding=1))
        x = F.max_pool2d(x, 2) if i % 2 else x
    x = torch.relu(net.dense(torch.relu(net.dense(flat(x), "dense_0")), "dense_1"))
    return net.dense(x, "head")


def resnet(net, x, depths, imagenet):
    x = torch.relu(net.norm(net.conv(x, "stem", 2, 3) if imagenet else net.conv(x, "stem", 1, 1), "stem_norm"))
    x = F.max_pool2d(x, 3, 2, 1) if imagenet else x
    for stage, depth in enumerate(depths):
        for i in range(depth):
            block, stride = net.at(f"stage_{stage}_block_{i}"), 2 if stage and not i else 1
            y = torch.relu(block.norm(block.conv(x, "conv_0", stride, 1), "norm_0"))
            y = block.norm(block.conv(y, "conv_1", 1, 1), "norm_1")
            if "shortcut" in block.params:
                x = block.norm(block.conv(x, "shortcut", stride), "shortcut_norm")
            elif stride > 1:
                more = y.shape[1] - x.shape[1]
                x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, more // 2, more - more // 2))
            x = torch.relu(x + y)
    return net.dense(x.mean((2, 3)), "head")


def wide_resnet(net, x, n):
    x = net.conv(x, "stem", 1, 1)
    for stage in range(3):
        for i in range(n):
            block, stride = net.at(f"stage_{stage}_block_{i}"), 2 if stage and not i else 1
            y = torch.relu(block.norm(x, "norm_0"))
            x = block.conv(y, "shortcut", stride) if "shortcut" in block.params else x
            y = torch.relu(block.norm(block.conv(y, "conv_0", stride, 1), "norm_1"))
            x = x + block.conv(y, "conv_1", 1, 1)
    return net.dense(torch.relu(net.norm(x, "norm")).mean((2, 3)), "head")


#: Kernel, stride and whether the input is added, for each block of EfficientNet-B0's table.
LITE0 = [
    *[(3, 1, 0)],
    *[(3, 2, 0), (3, 1, 1)],
    *[(5, 2, 0), (5, 1, 1)],
    *[(3, 2, 0), (3, 1, 1), (3, 1, 1)],
    *[(5, 1, 0), (5, 1, 1), (5, 1, 1)],
    *[(5, 2, 0), (5, 1, 1), (5, 1, 1), (5, 1, 1)],
    *[(3, 1, 0)],
]


def efficientnet_lite0(net, x):
    x = F.relu6(net.norm(net.same_conv(x, "stem", 3, 2), "stem_norm"))
    for i, (kernel, stride, residual) in enumerate(LITE0):
        block, y = net.at(f"block_{i}"), x
        if i > 0:
            y = F.relu6(block.norm(block.conv(y, "expand"), "expand_norm"))
        y = block.same_conv(y, "depthwise", kernel, stride, groups=y.shape[1])
        y = block.norm(block.conv(F.relu6(block.norm(y, "depthwise_norm")), "project"), "project_norm")
        x = x + y if residual else y
    x = F.relu6(net.norm(net.conv(x, "head_conv"), "head_conv_norm"))
    return net.dense(x.mean((2, 3)), "head")
