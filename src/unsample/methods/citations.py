"""BibTeX of the papers behind methods and editors, by arXiv id, which the `reference` of their rows names."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Protocol


class Cited(Protocol):
    """A row of a table: a method's, or an editor's."""

    @property
    def reference(self) -> str: ...
    @property
    def year(self) -> int: ...
    @property
    def bibtex(self) -> str: ...


_PAPERS: dict[str, tuple[str, str, str, int]] = {  # arXiv id: BibTeX key, title, authors, year of the first version
    "2006.11239": (
        "ho2020denoising",
        "Denoising Diffusion Probabilistic Models",
        "Jonathan Ho and Ajay Jain and Pieter Abbeel",
        2020,
    ),
    "2010.02502": (
        "song2021ddim",
        "Denoising Diffusion Implicit Models",
        "Jiaming Song and Chenlin Meng and Stefano Ermon",
        2020,
    ),
    "2108.01073": (
        "meng2022sdedit",
        "{SDEdit}: Guided Image Synthesis and Editing with Stochastic Differential Equations",
        "Chenlin Meng and Yutong He and Yang Song and Jiaming Song and Jiajun Wu and Jun-Yan Zhu and Stefano Ermon",
        2021,
    ),
    "2208.01626": (
        "hertz2022prompt",
        "Prompt-to-Prompt Image Editing with Cross Attention Control",
        "Amir Hertz and Ron Mokady and Jay Tenenbaum and Kfir Aberman and Yael Pritch and Daniel Cohen-Or",
        2022,
    ),
    "2211.01095": (
        "lu2022dpmsolverpp",
        "{DPM-Solver++}: Fast Solver for Guided Sampling of Diffusion Probabilistic Models",
        "Cheng Lu and Yuhao Zhou and Fan Bao and Jianfei Chen and Chongxuan Li and Jun Zhu",
        2022,
    ),
    "2211.09794": (
        "mokady2023null",
        "Null-text Inversion for Editing Real Images using Guided Diffusion Models",
        "Ron Mokady and Amir Hertz and Kfir Aberman and Yael Pritch and Daniel Cohen-Or",
        2022,
    ),
    "2211.12446": (
        "wallace2023edict",
        "{EDICT}: Exact Diffusion Inversion via Coupled Transformations",
        "Bram Wallace and Akash Gokul and Nikhil Naik",
        2022,
    ),
    "2302.03027": (
        "parmar2023zero",
        "Zero-shot Image-to-Image Translation",
        "Gaurav Parmar and Krishna Kumar Singh and Richard Zhang and Yijun Li and Jingwan Lu and Jun-Yan Zhu",
        2023,
    ),
    "2304.06140": (
        "huberman2024edit",
        "An Edit Friendly {DDPM} Noise Space: Inversion and Manipulations",
        "Inbar Huberman-Spiegelglas and Vladimir Kulikov and Tomer Michaeli",
        2023,
    ),
    "2305.04441": (
        "dong2023prompt",
        "Prompt Tuning Inversion for Text-Driven Image Editing Using Diffusion Models",
        "Wenkai Dong and Song Xue and Xiaoyue Duan and Shumin Han",
        2023,
    ),
    "2305.16807": (
        "miyake2023negative",
        "Negative-prompt Inversion: Fast Image Inversion for Editing with Text-guided Diffusion Models",
        "Daiki Miyake and Akihiro Iohara and Yu Saito and Toshiyuki Tanaka",
        2023,
    ),
    "2306.05414": (
        "han2024proxedit",
        "{ProxEdit}: Improving Tuning-Free Real Image Editing with Proximal Guidance",
        "Ligong Han and Song Wen and Qi Chen and Zhixing Zhang and Kunpeng Song and Mengwei Ren and Ruijiang Gao "
        "and Anastasis Stathopoulos and Xiaoxiao He and Yuxiao Chen and Di Liu and Qilong Zhangli and Jindong Jiang "
        "and Zhaoyang Xia and Akash Srivastava and Dimitris Metaxas",
        2023,
    ),
    "2307.10829": (
        "zhang2024bdia",
        "Exact Diffusion Inversion via Bi-directional Integration Approximation",
        "Guoqiang Zhang and J. P. Lewis and W. Bastiaan Kleijn",
        2023,
    ),
    "2309.04907": (
        "pan2023aidi",
        "Effective Real Image Editing with Accelerated Iterative Diffusion Inversion",
        "Zhihong Pan and Riccardo Gherardi and Xiufeng Xie and Stephen Huang",
        2023,
    ),
    "2310.01506": (
        "ju2024direct",
        "Direct Inversion: Boosting Diffusion-based Editing with 3 Lines of Code",
        "Xuan Ju and Ailing Zeng and Yuxuan Bian and Shaoteng Liu and Qiang Xu",
        2023,
    ),
    "2311.16711": (
        "brack2023ledits",
        "{LEDITS++}: Limitless Image Editing using Text-to-Image Models",
        "Manuel Brack and Felix Friedrich and Katharina Kornmeier and Linoy Tsaban "
        "and Patrick Schramowski and Kristian Kersting and Apolinário Passos",
        2023,
    ),
    "2311.18387": (
        "hong2024exact",
        "On Exact Inversion of {DPM}-Solvers",
        "Seongmin Hong and Kyeonghyun Lee and Suh Yoon Jeon and Hyewon Bae and Se Young Chun",
        2023,
    ),
    "2312.12540": (
        "samuel2025lightning",
        "Lightning-Fast Image Inversion and Editing for Text-to-Image Diffusion Models",
        "Dvir Samuel and Barak Meiri and Haggai Maron and Yoad Tewel and Nir Darshan and Shai Avidan and Gal Chechik "
        "and Rami Ben-Ari",
        2023,
    ),
    "2403.14602": (
        "garibi2024renoise",
        "{ReNoise}: Real Image Inversion Through Iterative Noising",
        "Daniel Garibi and Or Patashnik and Andrey Voynov and Hadar Averbuch-Elor and Daniel Cohen-Or",
        2024,
    ),
    "2408.05159": (
        "zhang2024easyinv",
        "{EasyInv}: Toward Fast and Better {DDIM} Inversion",
        "Ziyue Zhang and Mingbao Lin and Shuicheng Yan and Rongrong Ji",
        2024,
    ),
    "2409.10476": (
        "qian2024siminversion",
        "{SimInversion}: A Simple Framework for Inversion-Based Text-to-Image Editing",
        "Qi Qian and Haiyang Xu and Ming Yan and Juhua Hu",
        2024,
    ),
    "2410.07273": (
        "wang2024belm",
        "{BELM}: Bidirectional Explicit Linear Multi-step Sampler for Exact Inversion in Diffusion Models",
        "Fangyikang Wang and Hubery Yin and Yuejiang Dong and Huminhao Zhu and Chao Zhang and Hanbin Zhao and Hui Qian "
        "and Chen Li",
        2024,
    ),
    "2410.11648": (
        "mccallum2024efficient",
        "Efficient, Accurate and Stable Gradients for Neural {ODEs}",
        "Sam McCallum and James Foster",
        2024,
    ),
    "2410.23530": (
        "staniszewski2024there",
        "There and Back Again: On the Relation between Noise and Image Inversions in Diffusion Models",
        "{\\L}ukasz Staniszewski and {\\L}ukasz Kuci{\\'n}ski and Kamil Deja",
        2024,
    ),
    "2410.10792": (
        "rout2024semantic",
        "Semantic Image Inversion and Editing using Rectified Stochastic Differential Equations",
        "Litu Rout and Yujia Chen and Nataniel Ruiz and Constantine Caramanis and Sanjay Shakkottai and Wen-Sheng Chu",
        2024,
    ),
    "2411.04746": (
        "wang2024taming",
        "Taming Rectified Flow for Inversion and Editing",
        "Jiangshan Wang and Junfu Pu and Zhongang Qi and Jiayi Guo and Yue Ma and Nisha Huang and Yuxin Chen and Xiu "
        "Li and Ying Shan",
        2024,
    ),
    "2412.07517": (
        "deng2024fireflow",
        "{FireFlow}: Fast Inversion of Rectified Flow for Image Semantic Editing",
        "Yingying Deng and Xiangyu He and Changwang Mei and Peisong Wang and Fan Tang",
        2024,
    ),
    "2502.08834": (
        "blasingame2025rex",
        "{Rex}: Reversible Solvers for Diffusion Models",
        "Zander W. Blasingame and Chen Liu",
        2025,
    ),
    "2504.13109": (
        "jiao2026uniedit",
        "{UniEdit-Flow}: Unleashing Inversion and Editing in the Era of Flow Models",
        "Guanlong Jiao and Biqing Huang and Kuan-Chieh Wang and Renjie Liao",
        2025,
    ),
    "2604.01715": (
        "dao2026steerflow",
        "{SteerFlow}: Steering Rectified Flows for Faithful Inversion-Based Image Editing",
        "Thinh Dao and Zhen Wang and Kien T. Pham and Long Chen",
        2026,
    ),
    "2606.03111": (
        "zeng2026inverting",
        "Inverting the Generation Process of Denoising Diffusion Implicit Models: Empirical Evaluation and a Novel "
        "Method",
        "Yan Zeng and Masanori Suganuma and Takayuki Okatani",
        2026,
    ),
    "2211.12572": (
        "tumanyan2022plug",
        "Plug-and-Play Diffusion Features for Text-Driven Image-to-Image Translation",
        "Narek Tumanyan and Michal Geyer and Shai Bagon and Tali Dekel",
        2022,
    ),
    "2304.08465": (
        "cao2023masactrl",
        "{MasaCtrl}: Tuning-Free Mutual Self-Attention Control for Consistent Image Synthesis and Editing",
        "Mingdeng Cao and Xintao Wang and Zhongang Qi and Ying Shan and Xiaohu Qie and Yinqiang Zheng",
        2023,
    ),
    "2412.08629": (
        "kulikov2024flowedit",
        "{FlowEdit}: Inversion-Free Text-Based Editing Using Pre-Trained Flow Models",
        "Vladimir Kulikov and Matan Kleiner and Inbar Huberman-Spiegelglas and Tomer Michaeli",
        2024,
    ),
    "2506.01430": (
        "xie2025dnaedit",
        "{DNAEdit}: Direct Noise Alignment for Text-Guided Rectified Flow Editing",
        "Chenxi Xie and Minghan Li and Shuai Li and Yuhui Wu and Qiaosi Yi and Lei Zhang",
        2025,
    ),
    "2505.23145": (
        "kim2025flowalign",
        "{FlowAlign}: Trajectory-Regularized, Inversion-Free Flow-based Image Editing",
        "Jeongsol Kim and Yeobin Hong and Jonghyun Park and Jong Chul Ye",
        2025,
    ),
    "2312.04965": (
        "xu2023infedit",
        "Inversion-Free Image Editing with Natural Language",
        "Sihan Xu and Yidong Huang and Jiayi Pan and Ziqiao Ma and Joyce Chai",
        2023,
    ),
    "2304.07090": (
        "hertz2023delta",
        "Delta Denoising Score",
        "Amir Hertz and Kfir Aberman and Daniel Cohen-Or",
        2023,
    ),
    "2503.02187": (
        "nguyen2025hedit",
        "{h-Edit}: Effective and Flexible Diffusion-Based Editing via {Doob's} {h}-Transform",
        "Toan Nguyen and Kien Do and Duc Kieu and Thin Nguyen",
        2025,
    ),
}


def arxiv_ids(reference: str) -> list[str]:
    """The arXiv ids that a reference names."""
    return re.findall(r"arXiv:(\d{4}\.\d{5})", reference)


def bibtex(ids: Iterable[str]) -> str:
    """BibTeX entries, each once, in the order given.

    Raises:
        KeyError: an id that is not in the list.
    """
    return "\n\n".join(_entry(i) for i in dict.fromkeys(ids))


def entries(name: str, facts: Cited) -> list[str]:
    """The BibTeX of its papers; of those that are not in the list, what its row says of them."""
    ids = arxiv_ids(facts.reference)
    if facts.bibtex:
        return [facts.bibtex.strip()]
    known = [_entry(i) for i in ids if i in _PAPERS]
    if len(known) == len(ids) > 0:
        return known
    return [f"@misc{{{name},\n  note = {{{facts.reference}}},\n  year = {{{facts.year}}}\n}}"]


def _entry(arxiv_id: str) -> str:
    key, title, authors, year = _PAPERS[arxiv_id]
    fields = {
        "title": title,
        "author": authors,
        "year": str(year),
        "eprint": arxiv_id,
        "archivePrefix": "arXiv",
        "url": f"https://arxiv.org/abs/{arxiv_id}",
    }
    body = ",\n".join(f"  {name} = {{{value}}}" for name, value in fields.items())
    return f"@misc{{{key},\n{body}\n}}"
