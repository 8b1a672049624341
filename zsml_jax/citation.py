"""BibTeX of the methods, so that a paper cites what a run used."""

import difflib
import importlib.resources
import re

#: What each name cites; the method itself comes first.
_CITES = {
    "otter": ["shin2024otter"],
    "roboshot": ["adila2024roboshot"],
    "loki": ["roberts2023loki"],
    "more": ["tan2024more", "dao2022monarch"],
    "lora": ["hu2022lora"],
    "rslora": ["kalajdzievski2023rslora", "hu2022lora"],
    "dora": ["liu2024dora"],
    "vera": ["kopiczko2024vera"],
    "ia3": ["liu2022ia3"],
    "oft": ["qiu2023oft"],
    "boft": ["liu2024boft", "qiu2023oft"],
    "gralora": ["jung2025gralora"],
    "bitfit": ["zaken2022bitfit"],
    "nondominated_sorting": ["srinivas1994nsga"],
    "qlora": ["dettmers2023qlora"],
    "compression": ["namburi2023compression"],
    "lama": ["petroni2019lama"],
    "lm_eval": ["gao2021harness"],
    "gradual_pruning": ["zhu2018prune"],
    "n_of_m_sparsity": ["mishra2021sparse"],
    "wanda": ["sun2024wanda"],
    "sparsegpt": ["frantar2023sparsegpt"],
    "gptq": ["frantar2023gptq"],
    "awq": ["lin2024awq"],
    "smoothquant": ["xiao2023smoothquant"],
    "tbal": ["vishwakarma2023tbal"],
    "colander": ["vishwakarma2024colander", "vishwakarma2023tbal"],
    "autows": ["roberts2022autows"],
    "curvature": ["mcneela2024pathways"],
    "manticore": ["roberts2025manticore"],
    "market": ["huang2023market"],
    "alignez": ["adila2024alignez"],
    "swim": ["dsouza2024swim"],
    "prior_matching": ["liusie2023prior"],
    "bbse": ["lipton2018bbse"],
    "rlls": ["azizzadenesheli2019rlls"],
    "mlls": ["saerens2002mlls"],
    "bcts": ["alexandari2020bcts"],
    "conse": ["norouzi2014conse"],
    "sinkhorn": ["cuturi2013sinkhorn"],
    "temperature_scaling": ["guo2017calibration"],
    "clip": ["radford2021clip"],
    "sentence_transformers": ["reimers2019sbert"],
    "minilm": ["wang2020minilm", "reimers2019sbert"],
    "attention": ["vaswani2017attention"],
    "gpt2": ["radford2019gpt2"],
    "gpt_neo": ["black2021gptneo"],
    "gpt_neox": ["black2022gptneox"],
    "pythia": ["biderman2023pythia", "black2022gptneox"],
    "llama": ["touvron2023llama"],
    "llama3": ["grattafiori2024llama3"],
    "mistral": ["jiang2023mistral"],
    "qwen2": ["yang2024qwen2"],
    "qwen3": ["yang2025qwen3"],
    "mamba": ["gu2023mamba"],
    "bert": ["devlin2019bert"],
    "roberta": ["liu2019roberta"],
    "distilbert": ["sanh2019distilbert"],
    "albert": ["lan2020albert"],
    "t5": ["raffel2020t5"],
    "xlm_roberta": ["conneau2020xlmr"],
    "byte_pair_encoding": ["sennrich2016bpe"],
    "layer_norm": ["ba2016layernorm"],
    "rms_norm": ["zhang2019rmsnorm"],
    "rope": ["su2021rope"],
    "position_interpolation": ["chen2023interpolation"],
    "yarn": ["peng2023yarn"],
    "grouped_query_attention": ["ainslie2023gqa"],
    "gated_mlp": ["shazeer2020glu"],
    "top_k": ["fan2018topk"],
    "top_p": ["holtzman2020nucleus"],
    "min_p": ["nguyen2024minp"],
    "repetition_penalty": ["keskar2019ctrl"],
    "lenet": ["lecun1998lenet"],
    "resnet": ["he2016resnet"],
    "wide_resnet": ["zagoruyko2016wrn"],
    "efficientnet": ["tan2019efficientnet", "sandler2018mobilenetv2"],
    "vit": ["dosovitskiy2021vit"],
    "he_initialisation": ["he2015rectifiers"],
    "batch_norm": ["ioffe2015batchnorm"],
    "group_norm": ["wu2018groupnorm"],
    "adamw": ["loshchilov2019adamw"],
    "cosine_schedule": ["loshchilov2017sgdr"],
    "fully_sharded": ["rajbhandari2020zero"],
    "tensor_parallel": ["shoeybi2019megatron"],
    "flops_utilisation": ["chowdhery2022palm"],
    "successive_halving": ["jamieson2016halving"],
    "asha": ["li2020asha", "jamieson2016halving"],
    "population_based_training": ["jaderberg2017pbt"],
    "softmax_confidence": ["hendrycks2017baseline"],
    "energy": ["liu2020energy"],
    "dirichlet_calibration": ["kull2019dirichlet"],
    "adaptive_temperature": ["tomani2022parameterized"],
    "top_label_histogram": ["gupta2022toplabel"],
    "scaling_binning": ["kumar2019verified", "platt1999probabilistic"],
    "isotonic": ["zadrozny2002isotonic"],
    "squentropy": ["hui2023squentropy"],
    "crl": ["moon2020crl"],
    "fmfp": ["zhu2022fmfp", "foret2021sam"],
    "mixup": ["zhang2018mixup"],
    "learn_then_test": ["angelopoulos2021ltt", "clopper1934binomial"],
    "coreset": ["sener2018coreset"],
    "product_embedding": ["gu2019product", "sala2018hyperbolic"],
    "kappa_gcn": ["bachmann2020constant"],
    "product_gcn": ["mcneela2024pathways", "chami2019hgcn"],
    "gcn": ["kipf2017gcn"],
    "graphsage": ["hamilton2017graphsage"],
    "node2vec": ["grover2016node2vec"],
    "laplacian_eigenmaps": ["belkin2003laplacian"],
    "riemannian_adam": ["becigneul2019adaptive"],
    "fermi_dirac": ["krioukov2010hyperbolic"],
    "adamic_adar": ["adamic2003friends"],
    "weak_supervision": ["ratner2016programming"],
    "snorkel": ["ratner2019metal"],
    "metal": ["ratner2019metal"],
    "flyingsquid": ["fu2020flyingsquid"],
    "dawid_skene": ["dawid1979em"],
    "snuba": ["varma2018snuba"],
    "iws": ["boecking2021iws"],
    "goggles": ["das2020goggles"],
    "label_propagation": ["zhu2002propagation"],
    "performance_profiles": ["dolan2002profiles"],
    "critical_difference": ["demsar2006comparisons"],
    "spherical_mnist": ["cohen2018spherical"],
}


def citation(*names: str) -> str:
    """Returns the BibTeX entries of the named methods, each once, in the order of the names.

    Example:
      >>> print(citation("otter").splitlines()[0])
      @inproceedings{shin2024otter,

    Args:
      *names: methods such as ``"otter"``, models such as ``"gpt2"``, or techniques such as ``"bbse"`` and ``"rope"``;
        upper and lower case, hyphens and underscores are the same.

    Raises:
      ValueError: if a name is not known; it names the ones that come close, or all of them.
    """
    if not names:
        raise ValueError(f"name at least one of {', '.join(_CITES)}")
    entries = _entries()
    keys = [key for name in names for key in _CITES[_known(name)]]
    return "\n\n".join(entries[key] for key in dict.fromkeys(keys))


def _known(name: str) -> str:
    plain = name.lower().replace("-", "_").replace(" ", "_")
    if plain in _CITES:
        return plain
    close = difflib.get_close_matches(plain, _CITES, n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else f"known names are {', '.join(_CITES)}"
    raise ValueError(f"there is no citation for {name!r}; {hint}")


def _entries() -> dict[str, str]:
    text = importlib.resources.files("zsml_jax").joinpath("references.bib").read_text(encoding="utf-8")
    entries = re.findall(r"^(@\w+\{([\w-]+),\n.*?^\})$", text, flags=re.MULTILINE | re.DOTALL)
    return {key: entry for entry, key in entries}
