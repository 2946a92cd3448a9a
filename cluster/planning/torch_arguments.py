"""The arguments of torch's optimizers, schedulers and activations that are a part of identities.

They are those of torch 2.13. An argument that a later version adds to one of these classes must not be added here: it
is left out of identities while it has its default, so that results of earlier versions are found. A class that is not
here is described with all its arguments; add it with those of the version of torch that introduced it.
"""

TORCH_ARGUMENTS: dict[str, str] = {
    "torch.optim.Adafactor": "params lr beta2_decay eps d weight_decay foreach maximize",
    "torch.optim.Muon": "params lr weight_decay momentum nesterov ns_coefficients eps ns_steps adjust_lr_fn",
    "torch.optim.adadelta.Adadelta": "params lr rho eps weight_decay foreach capturable maximize differentiable",
    "torch.optim.adagrad.Adagrad": (
        "params lr lr_decay weight_decay initial_accumulator_value eps foreach maximize differentiable fused"
    ),
    "torch.optim.adam.Adam": (
        "params lr betas eps weight_decay amsgrad foreach maximize capturable differentiable fused "
        "decoupled_weight_decay"
    ),
    "torch.optim.adamax.Adamax": "params lr betas eps weight_decay foreach maximize differentiable capturable",
    "torch.optim.adamw.AdamW": (
        "params lr betas eps weight_decay amsgrad maximize foreach capturable differentiable fused"
    ),
    "torch.optim.asgd.ASGD": "params lr lambd alpha t0 weight_decay foreach maximize differentiable capturable",
    "torch.optim.lbfgs.LBFGS": (
        "params lr max_iter max_eval tolerance_grad tolerance_change history_size line_search_fn"
    ),
    "torch.optim.nadam.NAdam": (
        "params lr betas eps weight_decay momentum_decay decoupled_weight_decay foreach maximize capturable "
        "differentiable"
    ),
    "torch.optim.optimizer.Optimizer": "params defaults",
    "torch.optim.radam.RAdam": (
        "params lr betas eps weight_decay decoupled_weight_decay foreach maximize capturable differentiable"
    ),
    "torch.optim.rmsprop.RMSprop": (
        "params lr alpha eps weight_decay momentum centered capturable foreach maximize differentiable"
    ),
    "torch.optim.rprop.Rprop": "params lr etas step_sizes capturable foreach maximize differentiable",
    "torch.optim.sgd.SGD": "params lr momentum dampening weight_decay nesterov maximize foreach differentiable fused",
    "torch.optim.sparse_adam.SparseAdam": "params lr betas eps maximize",
    "torch.optim.lr_scheduler.ChainedScheduler": "schedulers optimizer",
    "torch.optim.lr_scheduler.ConstantLR": "optimizer factor total_iters last_epoch",
    "torch.optim.lr_scheduler.CosineAnnealingLR": "optimizer T_max eta_min last_epoch",
    "torch.optim.lr_scheduler.CosineAnnealingWarmRestarts": "optimizer T_0 T_mult eta_min last_epoch",
    "torch.optim.lr_scheduler.CyclicLR": (
        "optimizer base_lr max_lr step_size_up step_size_down mode gamma scale_fn scale_mode cycle_momentum "
        "base_momentum max_momentum last_epoch"
    ),
    "torch.optim.lr_scheduler.ExponentialLR": "optimizer gamma last_epoch",
    "torch.optim.lr_scheduler.LRScheduler": "optimizer last_epoch",
    "torch.optim.lr_scheduler.LambdaLR": "optimizer lr_lambda last_epoch",
    "torch.optim.lr_scheduler.LinearLR": "optimizer start_factor end_factor total_iters last_epoch",
    "torch.optim.lr_scheduler.MultiStepLR": "optimizer milestones gamma last_epoch",
    "torch.optim.lr_scheduler.MultiplicativeLR": "optimizer lr_lambda last_epoch",
    "torch.optim.lr_scheduler.OneCycleLR": (
        "optimizer max_lr total_steps epochs steps_per_epoch pct_start anneal_strategy cycle_momentum "
        "base_momentum max_momentum div_factor final_div_factor three_phase last_epoch"
    ),
    "torch.optim.lr_scheduler.PolynomialLR": "optimizer total_iters power last_epoch",
    "torch.optim.lr_scheduler.ReduceLROnPlateau": (
        "optimizer mode factor patience threshold threshold_mode cooldown min_lr eps"
    ),
    "torch.optim.lr_scheduler.SequentialLR": "optimizer schedulers milestones last_epoch",
    "torch.optim.lr_scheduler.StepLR": "optimizer step_size gamma last_epoch",
    "torch.optim.lr_scheduler._LRScheduler": "optimizer last_epoch",
    "torch.nn.modules.activation.CELU": "alpha inplace",
    "torch.nn.modules.activation.ELU": "alpha inplace",
    "torch.nn.modules.activation.GELU": "approximate",
    "torch.nn.modules.activation.GLU": "dim",
    "torch.nn.modules.activation.Hardshrink": "lambd",
    "torch.nn.modules.activation.Hardsigmoid": "inplace",
    "torch.nn.modules.activation.Hardswish": "inplace",
    "torch.nn.modules.activation.Hardtanh": "min_val max_val inplace min_value max_value",
    "torch.nn.modules.activation.LeakyReLU": "negative_slope inplace",
    "torch.nn.modules.activation.LogSigmoid": "",
    "torch.nn.modules.activation.LogSoftmax": "dim",
    "torch.nn.modules.activation.Mish": "inplace",
    "torch.nn.modules.activation.MultiheadAttention": (
        "embed_dim num_heads dropout bias add_bias_kv add_zero_attn kdim vdim batch_first device dtype"
    ),
    "torch.nn.modules.activation.PReLU": "num_parameters init device dtype",
    "torch.nn.modules.activation.RReLU": "lower upper inplace",
    "torch.nn.modules.activation.ReLU": "inplace",
    "torch.nn.modules.activation.ReLU6": "inplace",
    "torch.nn.modules.activation.SELU": "inplace",
    "torch.nn.modules.activation.SiLU": "inplace",
    "torch.nn.modules.activation.Sigmoid": "",
    "torch.nn.modules.activation.Softmax": "dim",
    "torch.nn.modules.activation.Softmax2d": "",
    "torch.nn.modules.activation.Softmin": "dim",
    "torch.nn.modules.activation.Softplus": "beta threshold",
    "torch.nn.modules.activation.Softshrink": "lambd",
    "torch.nn.modules.activation.Softsign": "",
    "torch.nn.modules.activation.Tanh": "",
    "torch.nn.modules.activation.Tanhshrink": "",
    "torch.nn.modules.activation.Threshold": "threshold value inplace",
}
